# SPDX-License-Identifier: Apache-2.0
"""An observation becomes a raw action chunk."""
