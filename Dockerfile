# Two stages: what builds stays behind.  Every package is checked against a hash in requirements*.txt.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/headgate
COPY requirements.txt requirements-oidc.txt requirements-postgres.txt ./
RUN /opt/headgate/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes -r requirements.txt -r requirements-oidc.txt -r requirements-postgres.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# hatchling is among the pinned requirements, so nothing is fetched to build the package itself; it goes again with pip.
RUN /opt/headgate/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/headgate/bin/pip uninstall --yes --quiet hatchling editables pathspec pluggy trove-classifiers pip \
 && /opt/headgate/bin/python -m compileall -q -j 0 /opt/headgate/lib \
 && install -d -m 0700 -o 10001 -g 10001 /state

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Headgate" \
      org.opencontainers.image.description="A streaming-first, OpenAI-compatible gateway for language models" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/headgate /opt/headgate
COPY --from=build --chown=10001:10001 /state /var/lib/headgate
# A container's log is stored: no token goes into it, `docker compose exec headgate headgate welcome` shows them.
# The data plane is for others; the control plane stays on the container's own loopback: `docker compose exec headgate
# headgate token create NAME` reaches it.  HEADGATE_CONTROL__HOST=0.0.0.0 opens it, behind the admin token.
ENV PATH=/opt/headgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/headgate \
    HEADGATE_STATE_DIR=/var/lib/headgate \
    HEADGATE_LOG_IS_KEPT=1 \
    HEADGATE_SERVER__HOST=0.0.0.0
# headgate.yaml is looked for in the working directory: mount it there.
WORKDIR /etc/headgate
USER 10001:10001
VOLUME /var/lib/headgate
EXPOSE 4000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --start-interval=1s --retries=3 \
  CMD ["python", "-m", "headgate.cli.ready"]
ENTRYPOINT ["headgate"]
CMD ["serve"]
