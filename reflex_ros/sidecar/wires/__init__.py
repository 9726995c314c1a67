# SPDX-License-Identifier: Apache-2.0
"""Wires: request decoders and response encoders, one file per wire, and the table that names them."""
