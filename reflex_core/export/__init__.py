# SPDX-License-Identifier: Apache-2.0
"""What an export says: its files and hash, its configuration, model families, and how it binds to a robot."""
