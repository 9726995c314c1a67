# SPDX-License-Identifier: Apache-2.0
"""Replay: run recorded requests again, and compare the answers with the recorded ones."""
