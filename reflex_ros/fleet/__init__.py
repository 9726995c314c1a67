# SPDX-License-Identifier: Apache-2.0
"""What `reflex fleet` does to many servers at once: the list, one request, the fan-out, the table, the traces."""
