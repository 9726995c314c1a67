# SPDX-License-Identifier: Apache-2.0
"""What is written beside the graphs: the description, the skeleton of an embodiment, pages for people."""
