# SPDX-License-Identifier: Apache-2.0
"""The JSONL trace, schema version 1: what happened, so that it can be replayed bit for bit."""
