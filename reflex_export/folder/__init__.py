# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint folder without torch: what it holds, and every reason why it cannot be exported."""
