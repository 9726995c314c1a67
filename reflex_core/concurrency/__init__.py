# SPDX-License-Identifier: Apache-2.0
"""Threads and queues: FIFO lock, worker pool, batch queue, cancellation, progress, time limit."""
