# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: subscriptions, observation buffer, chunk loop, watchdog, services, diagnostics."""
