# SPDX-License-Identifier: Apache-2.0
"""Text for people: untrusted text made harmless, rate-limited log lines, suggestions for misspelt names."""
