# SPDX-License-Identifier: Apache-2.0
"""What becomes of files that an earlier version made: read, to be converted by a command, or refused."""
