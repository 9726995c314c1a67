# SPDX-License-Identifier: Apache-2.0
"""Image files: headers, JPEG and PNG decoding, and repair of webcam JPEGs."""
