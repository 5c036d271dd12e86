"""Operations beyond core TensorFlow that a graph may hold and still be served everywhere."""

# Those of TensorFlow Text that its oldest release inside TensorFlow Serving has.
PORTABLE_TEXT_OPS = {"NormalizeUTF8", "CaseFoldUTF8", "RegexSplitWithOffsets", "WordpieceTokenizeWithOffsets"}
