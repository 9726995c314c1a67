# SPDX-License-Identifier: Apache-2.0
"""What the bytes of a request and of its answer mean: one file per wire, and the table that names them."""
