"""Failures in the shared suites say what was compared."""

import pytest

pytest.register_assert_rewrite("tests.contract.provider_contract")
