# SPDX-License-Identifier: Apache-2.0
"""The sub-commands of `reflex`: thin mains over the core; each `main(argv)` returns an exit status."""
