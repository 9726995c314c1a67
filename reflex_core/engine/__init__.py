# SPDX-License-Identifier: Apache-2.0
"""The engine and what it is built of: settings become policies, slots and the wedges around them."""
