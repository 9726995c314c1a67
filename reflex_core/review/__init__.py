# SPDX-License-Identifier: Apache-2.0
"""What happened: the episodes of traces and bags, the reason of each answer, and a report."""
