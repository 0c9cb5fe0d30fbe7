# One image for every service; what runs in it is the command in docker-compose.yml.
FROM python:3.13-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    PATH=/opt/venv/bin:$PATH

WORKDIR /app

# Dependencies before code, so that a change of code does not install them anew. The lock holds the whole tree
# with hashes; only what the product itself needs is installed from it.
COPY pyproject.toml requirements.lock ./
RUN python -m venv /opt/venv \
 && sed -n '/^uv==/,/[^\\]$/p' requirements.lock > /tmp/installer.txt \
 && python -m venv /tmp/installer \
 && /tmp/installer/bin/pip install --no-cache-dir --require-hashes --no-deps -r /tmp/installer.txt \
 && /tmp/installer/bin/uv pip install --no-cache --python /opt/venv/bin/python \
      --require-hashes -r pyproject.toml -c requirements.lock \
 && rm -rf /tmp/installer /tmp/installer.txt

COPY beat_schedule.py flowerconfig.py ./
COPY config config
COPY db db
COPY tenantsync tenantsync
COPY tasks tasks
COPY clients/typescript/dist clients/typescript/dist

RUN useradd --system --no-create-home tenantsync
USER tenantsync

CMD ["python", "-m", "tenantsync", "--help"]
