# SPDX-License-Identifier: Apache-2.0
"""HTTP within a deadline: connections that are kept, requests with their retries."""
