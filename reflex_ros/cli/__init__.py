# SPDX-License-Identifier: Apache-2.0
"""The commands: serve, replay, doctor. Thin mains over the core; each `main(argv)` returns an exit status."""
