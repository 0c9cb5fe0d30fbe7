"""Sliding-window request counters per user and per project."""

from collections import deque
from email.utils import formatdate

from sandbox.google.errors import ApiError
from sandbox.google.specs import QuotaRules


class Quotas:
    def __init__(self) -> None:
        self._users: dict[str, deque[int]] = {}
        self._project: deque[int] = deque()

    def charge(self, account: str, rules: QuotaRules, now_ms: int) -> None:
        """A refused request is not charged; whether Google charges it is not known."""
        if rules.per_user is None and rules.per_project is None:
            return
        user = self._users.setdefault(account, deque())
        oldest = now_ms - round(rules.window_s * 1000)
        for window in (user, self._project):
            while window and window[0] <= oldest:
                window.popleft()
        if rules.per_user is not None and len(user) >= rules.per_user:
            raise _refusal(rules, rules.user_reason, user[0] - oldest, now_ms)
        if rules.per_project is not None and len(self._project) >= rules.per_project:
            raise _refusal(rules, rules.project_reason, self._project[0] - oldest, now_ms)
        user.append(now_ms)
        self._project.append(now_ms)


def _refusal(rules: QuotaRules, reason: str, wait_ms: int, now_ms: int) -> ApiError:
    if rules.status == 429 and reason == "userRateLimitExceeded":
        reason = "rateLimitExceeded"
    wait_s = max(1, -(-wait_ms // 1000))
    headers = {}
    if rules.retry_after != "none":
        headers["Retry-After"] = retry_after(wait_s, now_ms, as_date=rules.retry_after == "date")
    return ApiError(rules.status, reason, headers=headers)


def retry_after(wait_s: float, now_ms: int, *, as_date: bool) -> str:
    return formatdate(now_ms / 1000 + wait_s, usegmt=True) if as_date else f"{wait_s:g}"
