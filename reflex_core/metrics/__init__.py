# SPDX-License-Identifier: Apache-2.0
"""Every metric, the latency objective, episodes under way, and statistics of counts."""
