# The app of csist on a CPU: `docker build -t csist .`, then `docker run --rm -p 7860:7860 csist` and http://127.0.0.1:7860
FROM python:3.11-slim

# PyTorch's own index holds the CPU build; the one on PyPI includes CUDA (several GB).
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    CSIST_CACHE_DIR=/var/cache/csist

WORKDIR /source
COPY constraints-cpu.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints-cpu.txt '.[app,astro,video]' && rm -rf /source

RUN useradd --create-home csist && install -d -m 1777 /var/cache/csist /data
USER csist
WORKDIR /data

# The solver is compiled here, so that the first image takes seconds on a processor of the same kind.
RUN python -c "import csist, numpy; frame = numpy.random.default_rng(0).normal(size=(32, 32)); \
    frame[14:17, 14:17] += 60.0; csist.unmix(frame); csist.unmix(frame[9:20, 9:20], noise_std=1.0)"

EXPOSE 7860
ENTRYPOINT ["csist"]
CMD ["app", "--host", "0.0.0.0", "--port", "7860"]
