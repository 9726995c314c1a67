# SPDX-License-Identifier: Apache-2.0
"""pi0 and pi0.5: a prefix graph of PaliGemma and one Euler step of the action expert."""
