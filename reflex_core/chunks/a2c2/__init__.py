# SPDX-License-Identifier: Apache-2.0
"""A2C2: a small network corrects action chunks that come late (arXiv 2509.23224)."""
