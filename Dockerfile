# syntax=docker/dockerfile:1
# One image for the webserver, the daemon, the code location and the runs.

FROM python:3.12.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements requirements
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --requirement requirements/build.txt \
 && python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-deps --only-binary :all: --require-hashes --requirement requirements/image.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY libraries/dagster-mongo libraries/dagster-mongo
COPY market_data_pipeline market_data_pipeline
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./libraries/dagster-mongo . \
 && /opt/venv/bin/pip install --no-deps --no-index wheels/*.whl

FROM python:3.12.12-slim-bookworm
RUN groupadd --gid 10001 dagster \
 && useradd --uid 10001 --gid dagster --no-create-home --home-dir /opt/dagster dagster \
 && install --directory --owner dagster --group dagster /var/lib/market-data
COPY --from=build /opt/venv /opt/venv
COPY deploy/dagster.yaml /opt/dagster/dagster.yaml
COPY deploy/workspace.yaml /opt/dagster/deploy/workspace.yaml
COPY deploy/watchlists /opt/dagster/deploy/watchlists
ENV PATH=/opt/venv/bin:$PATH \
    DAGSTER_HOME=/opt/dagster \
    MARKET_DATA_STATE=/var/lib/market-data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/dagster
USER 10001:10001
VOLUME /var/lib/market-data
EXPOSE 4000
# Of a code location, which is what this image runs by itself; compose has one for each process.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["dagster", "api", "grpc-health-check", "--host", "127.0.0.1", "--port", "4000"]
CMD ["dagster", "api", "grpc", "--lazy-load-user-code", "--host", "0.0.0.0", "--port", "4000", "--module-name", "market_data_pipeline.definitions"]
