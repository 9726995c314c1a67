# SPDX-License-Identifier: Apache-2.0
"""The weights of a policy and the noise of libraries: what loading and writing with torch needs."""
