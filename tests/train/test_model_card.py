"""Model cards describe exported folders, and the Hub's own command uploads them."""

import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest
import yaml

from bert_jax.train import convert
from tests.runs import run_in_process
from tests.train.test_convert import write_hf_folder


def read_card(folder):
    """Return the header of a card as a dict, and its text."""
    _, header, text = (folder / 'README.md').read_text().split('---\n', 2)
    return yaml.safe_load(header), text


def test_card_of_a_trained_model(pretrained, corpus, tmp_path):
    convert.to_hf(pretrained, tmp_path / 'card', license='mit')
    header, text = read_card(tmp_path / 'card')
    assert header == {
        'library_name': 'transformers',
        'license': 'mit',
        'pipeline_tag': 'fill-mask',
        'tags': ['bert', 'bert_jax'],
    }
    assert text.startswith('\n# card\n')
    assert '`BertForPreTraining` for masked language modeling, with 2 layers of width 32' in text
    rows = dict(line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| '))
    assert (rows['data'], rows['initial weights'], rows['steps']) == (f'`{corpus.name}`', 'random', '20')
    assert str(corpus.parent) not in text
    scores = json.loads((pretrained / 'metrics.jsonl').read_text().splitlines()[-1])
    assert float(rows['mlm_loss']) == pytest.approx(scores['eval/mlm_loss'], abs=1e-4)


def test_card_of_a_converted_classifier(tmp_path):
    convert.from_hf(str(write_hf_folder(tmp_path / 'hf', 'BertForSequenceClassification')), tmp_path / 'run')
    convert.to_hf(tmp_path / 'run', tmp_path / 'again')
    header, text = read_card(tmp_path / 'again')
    assert (header['license'], header['pipeline_tag']) == ('unknown', 'text-classification')
    assert 'The weights were converted, and not trained further.' in text
    assert 'Scores' not in text
    assert 'AutoModelForSequenceClassification' in text


@pytest.mark.parametrize(('flag', 'message'), [('a: b', 'is not an identifier'), ('', 'is empty')])
def test_license_must_be_an_identifier(flag, message):
    done = run_in_process('bert_jax.bin.convert', '--from=a', '--to_hf=b', f'--license={flag}')
    assert done.returncode
    assert message in done.stderr


class Hub(http.server.BaseHTTPRequestHandler):
    """The requests of an upload to the Hugging Face Hub, as its client makes them."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        url = f'http://{self.headers["Host"]}/me/model'
        answer = {}
        if self.path.endswith('/preupload/main'):
            paths = [file['path'] for file in json.loads(body)['files']]
            answer = {'files': [dict(path=p, uploadMode='regular', shouldIgnore=False) for p in paths]}
        elif self.path.endswith('/commit/main'):
            entries = [json.loads(line) for line in body.splitlines()]
            self.server.uploaded += [e['value']['path'] for e in entries if e['key'] == 'file']
            answer = {'commitUrl': f'{url}/commit/1', 'commitOid': '1', 'hookOutput': ''}
        elif self.path.endswith('/repos/create'):
            answer = {'url': url}
        self.answer(answer)

    def do_GET(self):
        self.answer({})

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_command_of_the_hub_uploads_an_exported_folder(pretrained, tmp_path):
    command = shutil.which(
        'hf', path=os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ['PATH']])
    )
    if not command:
        pytest.skip('huggingface_hub has no command line here')
    convert.to_hf(pretrained, tmp_path / 'card')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        server.uploaded = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **os.environ,
            'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
            'HF_HOME': str(tmp_path / 'home'),
            'HF_TOKEN': 'hf_test',
            'HF_HUB_DISABLE_XET': '1',
        }
        done = subprocess.run(
            [command, 'upload', 'me/model', str(tmp_path / 'card')],
            env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert sorted(server.uploaded) == sorted(file.name for file in (tmp_path / 'card').iterdir())
    assert {'README.md', 'config.json', 'model.safetensors', 'tokenizer.json'} <= {*server.uploaded}
