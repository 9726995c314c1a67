# SPDX-License-Identifier: Apache-2.0
"""What is recorded of finished answers: the recorder protocol, traces, the audit log."""
