# SPDX-License-Identifier: Apache-2.0
"""What is right and wrong on a machine, as findings. Each check is a small function; none changes anything.

Libraries that may be missing are imported inside the checks, so that a missing one is a finding.
"""
