# SPDX-License-Identifier: Apache-2.0
"""The audit log: a listener of the engine (log), its files (store), and their hash chain (chain)."""
