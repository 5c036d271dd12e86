# The official TensorFlow Serving image with an export inside. The export's directory is what it is built from:
#
#   docker build -f docker/serving.Dockerfile --build-arg MODEL_NAME=sst2 -t sst2:serving exports/sst2
#   docker run --rm -p 8500:8500 -p 8501:8501 sst2:serving
#
# Without building anything, the same from a folder: the docker run line in the export's own README.md.
FROM tensorflow/serving:2.20.0

ARG MODEL_NAME=model
ENV MODEL_NAME=${MODEL_NAME}
COPY . /models/${MODEL_NAME}/
COPY batching_parameters.txt /models/

# These follow what the image's entry point makes of MODEL_NAME.
CMD ["--enable_batching=true", "--batching_parameters_file=/models/batching_parameters.txt"]
