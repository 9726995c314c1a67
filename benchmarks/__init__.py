# SPDX-License-Identifier: Apache-2.0
"""Measurements of this package: `python -m benchmarks.act_overhead` and its neighbours. docs/explanation/performance.md reads them."""
