# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: /act, /health, /config and /metrics, on an event loop in a thread of its own.

The socket is bound before the policy loads. The loop only moves bytes; all other work is done by worker
threads.
"""
