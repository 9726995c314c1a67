# SPDX-License-Identifier: Apache-2.0
"""The robot a policy is served to: what is physically possible for it."""
