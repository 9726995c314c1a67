# SPDX-License-Identifier: Apache-2.0
"""How a policy's numbers become physical ones: the formulas (affine), and the files with statistics."""
