# SPDX-License-Identifier: Apache-2.0
"""SmolVLA: a prefix graph of the vision-language model and one Euler step of the action expert."""
