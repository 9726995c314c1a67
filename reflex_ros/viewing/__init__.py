# SPDX-License-Identifier: Apache-2.0
"""Recordings and live servers in the Rerun viewer; rerun-sdk is imported in here alone, when something is viewed."""
