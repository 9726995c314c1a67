# SPDX-License-Identifier: Apache-2.0
"""What people see in a terminal, and what they typed."""
