# SPDX-License-Identifier: Apache-2.0
"""Two policies side by side: who answers which episode, and what happens when one of them fails."""
