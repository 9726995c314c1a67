# SPDX-License-Identifier: Apache-2.0
"""Pictures as files: what their first bytes say (headers), JPEG and PNG as pixels, and JPEGs of webcams mended."""
