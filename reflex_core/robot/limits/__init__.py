# SPDX-License-Identifier: Apache-2.0
"""What keeps one robot inside its limits: who is tripped, and how it is held."""
