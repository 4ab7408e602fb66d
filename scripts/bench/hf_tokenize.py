"""Times Hugging Face tokenizers on documents: hf_tokenize.py <tokenizer.json> <file of JSON strings, one a line> -> JSON."""

import json
import os
import sys
import time

import tokenizers

tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2], encoding="utf8") as file:
    documents = [json.loads(line) for line in file]
start = time.perf_counter()
encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
seconds = time.perf_counter() - start
tokens = sum(len(one.ids) for one in encoded)
print(json.dumps({"version": tokenizers.__version__, "tokens": tokens, "seconds": seconds, "cpu": os.times().user}))
