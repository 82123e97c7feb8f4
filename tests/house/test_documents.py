"""The documents say what is true: their commands are understood, their links lead somewhere, their figures stand in a
result file."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.cli import app as cli
from synthgen.cli.reference import check_command, check_flags
from synthgen.cubes.phantom import simulate_cohort
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import SynthgenError
from synthgen.experiments.study.options import MIXED, REAL
from synthgen.integration.options import Pretraining
from synthgen.integration.recipe import GeneratorTraining
from synthgen.ssl.backbone import load_backbone, make_backbone, save_backbone

spec = importlib.util.spec_from_file_location("documents", Path(__file__).with_name("documents.py"))
documents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(documents)

ROOT, PAGES = documents.ROOT, documents.PAGES
RESULTS = ROOT / "benchmarks" / "results"
OTHERS = ("pip install", "uv pip install", "git clone", "cd ", "source ", "sbatch configs/", "python -m venv")

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a source tree")


def check_line(line):
    """A command line of a document: SynthgenError or AssertionError when it could not run as it stands."""
    if line.startswith("make "):
        target = shlex.split(line)[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"no target: {line}"
    elif line.startswith("synthgen "):
        check_command(cli.app, line)
    elif found := re.match(r"python -m (benchmarks\.\w+)", line):
        assert (ROOT / f"{found[1].replace('.', '/')}.py").exists(), line
    elif found := re.match(r"python (examples/\w+\.py)", line):
        assert (ROOT / found[1]).exists(), line
    elif found := documents.LAUNCHED.fullmatch(line):
        if found[1] == "pretrain.py" or found[1].endswith(".pretrain"):
            check_flags(Pretraining, shlex.split(found[2]), "pretrain.py")
        elif found[1].endswith(".recipe"):
            check_flags(GeneratorTraining, shlex.split(found[2]), "recipe")
        elif found[1] == "-m synthgen":
            check_command(cli.app, "synthgen" + found[2])
    else:
        assert line.startswith(OTHERS), f"a command that no test knows: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_understood(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in documents.commands(page):
        check_line(line)
    for name in re.findall(r"`synthgen ([a-z][a-z-]+)", page.read_text()):
        assert name in {e.name for e in _entries()}, f"{page.name}: no command '{name}'"


def _entries():
    from synthgen.cli.reference import entries

    return entries(cli.app)


def test_a_wrong_line_of_a_document_is_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in ("synthgen gate x", "make nothing", "rm -rf x", "accelerate launch pretrain.py --ratio 2"):
        with pytest.raises((SynthgenError, AssertionError)):
            check_line(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for words, target in documents.links(page):
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: [{words}]({target})"
        if place:
            assert place in documents.headings(file), f"{page.name}: [{words}]({target})"


def test_five_commands_are_five():
    text = (ROOT / "README.md").read_text().split("## Your own cubes in five commands")[1]
    block = text.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    assert len(block.strip().splitlines()) == 5
    python = (ROOT / "README.md").read_text().split("## In your own code")[1].split("```python\n")[1].split("```")[0]
    assert len([line for line in python.splitlines() if line.strip()]) <= 10
    compile(python, "README.md", "exec")


@pytest.mark.parametrize(("page", "run"), [("README.md", "runs/pretrain"), ("docs/tutorial.md", "runs/mine")])
def test_features_by_the_python_of_the_documents_are_those_of_the_backbone(page, run, tmp_path, monkeypatch):
    """The network sees standardised log-reflectance: without that line the features would be of no use."""
    monkeypatch.chdir(tmp_path)
    statistics = BandStatistics(tuple(np.linspace(-5, -1, 16).tolist()), tuple(np.linspace(0.3, 0.6, 16).tolist()))
    model = make_backbone("resnet18", 16, 64)
    save_backbone(model, run, "resnet18", range(450, 901, 30), 64, statistics)
    eyes = simulate_cohort("labelled.h5", patients=4, size=64, seed=3, workers=1)
    cubes = torch.from_numpy(eyes.cubes(range(8)))
    block = next(b for b in documents.blocks(ROOT / page, "python") if "load_state_dict" in b)
    told = {"cubes": cubes}
    exec(compile(block, page, "exec"), told)
    with torch.no_grad():
        expected = load_backbone(run)(cubes)
    assert torch.allclose(told["features"], expected, rtol=1e-4, atol=1e-5)
    assert f'load_backbone("{run}")(cubes)' in (ROOT / page).read_text()


def result(name):
    """The newest record of a result file."""
    found = json.loads((RESULTS / f"{name}.json").read_text())
    return found[-1] if isinstance(found, list) else found


def check(verdict, name):
    return next(c for c in verdict["checks"] if c["name"] == name)


def interval(text):
    """'0.992 [0.985, 0.998]' to two digits."""
    return re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.2f}", text)


def figures():
    """Beginning of a row of the README's table -> what it must say, from the result files."""
    supply, gates, loop = result("supply_speed"), result("gates_speed"), result("loop_speed")
    quality, power, alarms = result("packaged_quality"), result("power"), result("false_alarms")
    demo = result("demo")
    gain = next(d for d in demo["differences"] if (d["first"], d["second"]) == (MIXED, REAL))
    low, high = gain["interval"]
    ingest, phantom, real = result("ingest"), result("phantom_speed"), result("real_main_job")
    shares = [gates["per cube"][k] for k in ("share of heun 8", "share of ab2 8")] + [gates["per cube at 224"]["share"]]
    tilt = quality["reconstruction"]["tilt_retained"]
    made = quality["synthetic"]
    caught = min(found["caught"] for found in power["copies"].values())
    sets = [alarms[k] for k in ("sets of 60", "sets of 240")]
    probe = {k: f"{v[0]:.2f} [{v[1]:.2f}, {v[2]:.2f}]" for k, v in real["vessel_probe_auroc"].items()}
    two = ingest["2 workers"]
    per_core = phantom["cubes_per_second_and_core"]
    assert {c["status"] for c in quality["fresh_real"]["checks"]} == {"pass"}
    return {
        "packaged generator, 8 steps": [f"{supply['sampled_and_decoded_per_second']:.0f} cubes/s"],
        "per-cube gates": [", ".join(f"{100 * s:.0f} %" for s in shares)],
        "[what the gates catch]": [
            f"at least {100 * caught:.1f} %",
            f"{sum(s['failed'] * s['verdicts'] for s in sets):.0f} of {sum(s['verdicts'] for s in sets)} verdicts",
        ],
        "pretraining at ratio 0.5": [f"{loop['ratio_half_over_none']:.2f}"],
        "gates on fresh": [quality["fresh_real"]["status"], "every check"],
        "gates on the packaged": [
            f"**{made['status']}**",
            f"{100 * (1 - check(made, 'acceptance')['value']):.0f} % of its cubes rejected",
            f"Frechet distance of the rest {check(made, 'joint_frechet_ratio')['value']:.1f} times",
        ],
        "a blue tilt": [f"{interval(tilt['whole image'])}, {interval(tilt['left half'])}"],
        "ingest of 2,000": [f"{two['cubes_per_second']} cubes/s", f"{round(two['all_together_MB'], -1)} MB"],
        "phantom, per core": [f"{per_core['64']:.0f}, {per_core['224']:.0f}, {per_core['672']:.1f} cubes/s"],
        "`make demo`": [
            f"{demo['total_seconds'] / 60:.1f} minutes",
            f"{gain['conclusion']} ({gain['difference']:+.2f} AUROC [{low:+.2f}, {high:+.2f}])",
        ],
        "semi-real eyes": [probe["pretrained"], f"random {probe['random']}"],
    }


def test_every_figure_of_the_readme_stands_in_a_result_file():
    table = (ROOT / "README.md").read_text().split("| what | measured | file, measurement |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    expected = figures()
    jobs = re.findall(r'^        "(\w+)": ', (ROOT / "benchmarks" / "run.py").read_text(), re.M)
    for row in rows:
        about, measured, source = (cell.strip() for cell in row.strip("| \n").split(" | "))
        (key,) = [k for k in expected if about.startswith(k)]
        for figure in expected.pop(key):
            assert figure in measured, f"{about}: {figure} by the result file, {measured} in the README"
        *files, job = re.findall(r"`([^`]+)`", source)
        assert files and all((RESULTS / f"{f}.json").exists() for f in files)
        assert job == "real" or job in jobs, f"{source}: no such measurement"
    assert not expected, f"rows that are missing: {list(expected)}"


def test_costs_of_a_million_cubes_follow_from_the_measurements():
    supply, gates, shards, memory = (result(n) for n in ("supply_speed", "gates_speed", "shards", "memory"))
    accepted = check(result("packaged_quality")["synthetic"], "acceptance")["value"]
    page = (ROOT / "docs" / "scale.md").read_text()
    made = 1 / supply["sampled_and_decoded_per_second"]
    judged = made + 1 / supply["cubes_per_second"]["gates"]
    hours = {
        "sampled and decoded, 64x64": made,
        "the same through the per-cube gates": judged,
        f"a million *accepted* ones of the packaged generator, of which {100 * accepted:.0f} % are": judged / accepted,
        "decoded from tokens, 64x64": 1 / supply["cubes_per_second"]["decode"],
        "gates at 224x224": gates["per cube at 224"]["milliseconds a cube"]["gates"] / 1000,
    }
    rows = {about: f"{1e6 * seconds / 3600:.1f} hours" for about, seconds in hours.items()}
    reading = {k: 1e6 / v["cubes_per_second"]["ours"] for k, v in shards["cubes"].items()}
    tokens = shards["tokens"]
    rows["read from token shards, 64x64, one core"] = (
        f"{1e6 / tokens['64, packaged']['cubes_per_second']['ours']:.0f} seconds"
    )
    rows["read from cube shards, 64x64, one core"] = f"{reading['64x64'] / 60:.1f} minutes"
    rows["read from cube shards, 224x224, one core"] = f"{reading['224x224'] / 60:.0f} minutes"
    sizes = [tokens[k]["bytes_a_cube"] / 1000 for k in ("64, packaged", "224, 8/8, base 4x4", "672, 8/8, base 4x4")]
    rows["stored as tokens: 64x64; 224x224; 672x672"] = "; ".join(f"{s:.1f} GB" for s in sizes)
    cubes = [16 * side**2 * 2 / 1000 for side in (64, 224)]
    rows["stored as cubes of uint16: 64x64; 224x224 (16 bands, by computation)"] = "; ".join(
        f"{c:,.0f} GB" for c in cubes
    )
    flow = memory["224, flow of 512"]["TFLOP to sample a cube in 8 evaluations"]
    rows["sampled at 224x224 with 512 channels, by computation"] = f"{1e6 * flow:,.0f} TFLOP"
    decode = memory["224, autoencoder"]["GFLOP to decode a cube"]
    rows["decoded at 224x224, by computation"] = f"{1e3 * decode:,.0f} TFLOP"
    for about, cost in rows.items():
        assert f"| {about} | {cost} |" in page, f"{about}: {cost}"


def test_what_the_supply_page_says_was_measured():
    loop, mix, shards, streaming = (result(n) for n in ("loop_speed", "mix", "shards", "streaming"))
    pool = loop["pools"]["0.5"]
    tokens, cubes = shards["tokens"], {k: v["cubes_per_second"] for k, v in shards["cubes"].items()}
    small = [tokens[k] for k in ("224, 8/8, base 4x4", "224, 8/8, no base")]
    read = small[0]["cubes_per_second"]
    over = lambda peer: "; ".join(f"{rates['ours'] / rates[peer]:.2f}" for rates in cubes.values())
    ahead = [
        [streaming[k][f"{a}, read ahead"] for a in ("mapped", "file")]
        for k in ("over_memory", "share_of_a_step_that_waits")
    ]
    short = streaming["share_that_waits_where_a_step_otherwise_takes"]
    per_core = "webdataset, .npy of tokens"
    rows = {
        "samples/s at ratio 0.5": f"{loop['ratio_half_over_none']:.2f}; {loop['with_decoded_cache']:.2f}",
        "acceptance": f"{pool['pool/acceptance']:.2f}; {pool['pool/draws_per_id']:.1f}",
        "mixing": f"{100 * mix['overhead']['mix_share_of_a_step']:.2f} % of a step",
        "memory": f"{mix['memory']['mb_a_thousand_steps']:+.1f} MB per 1,000 steps",
        "bytes of": "; ".join(f"{s['bytes_a_cube']:,.0f}" for s in small),
        "token shards": f"{read['ours']:,}; {read[per_core]:,} cubes/s",
        "cube shards": over("webdataset, .npy"),
        "the same over zarr": over("zarr, a cube a chunk"),
        "the same over mosaicml": over("mosaicml-streaming"),
        "four cubes of 672x672 a step": "; ".join(
            f"{over:.2f}, {100 * wait:.1f} %" for over, wait in zip(*ahead, strict=True)
        ),
        "share that waits where a step takes 0.1 s": "; ".join(
            ", ".join(f"{100 * short[f'{a}, read ahead'][pause]:.0f} %" for pause in ("0.1 s", "0.4 s"))
            for a in ("mapped", "file")
        ),
    }
    table = (ROOT / "docs" / "supply.md").read_text().split("| what | measured |")[1].split("\n\n")[0]
    for about, measured in rows.items():
        assert re.search(rf"^\| {re.escape(about)}[^|]* \| {re.escape(measured)} \|$", table, re.M), (
            f"{about}: {measured}"
        )
    watched = mix["memory"]
    words = f"took {watched['ms_of_the_backbone']:.1f} ms of a step of {watched['ms_a_step']:.0f}."
    assert words in (ROOT / "docs" / "supply.md").read_text()


def test_what_the_page_on_generators_says_was_measured():
    """The base grid's table, the training at 224 and what the packaged autoencoder keeps, from their records."""
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "generator.md").read_text())
    for run in json.loads((RESULTS / "base_grid.json").read_text()):
        grid, levels, steps = re.fullmatch(r".*grid (\d+), levels (\d+), (\d+) steps", run["what"]).groups()
        if steps == "3000":
            kept = f"{run['oxygen_contrast_kept']:.2f} {run['oxygen contrast kept, interval']}"
            bytes_of = f"{run['bytes of the codes']:.0f}, {run['bytes of the base']}"
            row = [grid, levels, bytes_of, f"{run['psnr_db']:.2f}", f"{run['spectral_angle_deg']:.3f}"]
            row += [run["tilt kept, whole eye"], run["tilt kept, left half"], kept]
            assert " | ".join(row) in page, row
    thin = {run["what"]: run["thin_vessels_kept"] for run in json.loads((RESULTS / "base_grid.json").read_text())}
    one, two, four = (thin[f"compression 4, base grid 4, levels {n}, 3000 steps"] for n in (1, 2, 4))
    assert f"{one:.2f}, {two:.2f} and {four:.2f} is left at 1, 2 and 4" in page
    large = result("retina224")
    trained, remade, cube = (large[k] for k in ("trained", "reconstruction", "a cube of 672 pixels"))
    for words in (
        f"{trained['autoencoder']['steps']:,.0f} steps) and the flow",
        f"{trained['diffusion']['steps']:,.0f} steps), and judges",
        f"{remade['psnr_db']:.2f} dB, {remade['spectral_angle_deg']:.3f} degrees; {remade['tilt kept, whole eye']} of",
        f"{remade['tilt kept, left half']} of one over its left half",
        f"{remade['thin_vessels_kept']:.3f} of their contrast",
        f"{remade['oxygen_contrast_kept']:.1f} times as much as they should",
        f"{cube['psnr_db']:.2f} dB, in tiles",
        f"(largest difference {cube['largest difference of tiles from whole']})",
        f"with {trained['diffusion']['cubes']:.0f} cubes to learn from",
    ):
        assert words in page, words
    packaged = result("packaged_quality")
    made, own = packaged["synthetic"], packaged["near_its_own_training_eyes"]
    for words in (
        f"{packaged['reconstruction']['artery-vein ratio 600/570 kept']} of it",
        f"six levels and {packaged['reconstruction']['psnr_db']:.1f} dB",
        f"{made['accepted']} of {made['proposed']} accepted",
        f"MS-SSIM ({check(made, 'ms_ssim_3_difference')['value']:.3f} from real)",
        f"the joint ratio is {check(made, 'joint_frechet_ratio')['value']:.1f},",
        f"its own {own['training_eyes']:,} training eyes as",
        f"{100 * own['raw samples']:.2f} % of raw samples",
        f"that {own['alpha']:.0%} of unseen".replace("%", " %"),
        f"of other unseen eyes {100 * own['eyes never seen']:.2f} %",
    ):
        assert words in page, words
    whole, half = (packaged["reconstruction"]["tilt_retained"][k].split()[0] for k in ("whole image", "left half"))
    gates = re.sub(r"\s+", " ", (ROOT / "docs" / "gates.md").read_text())
    assert f"the present one keeps {float(whole):.0%} and {float(half):.0%})".replace("%", " %") in gates
    assert f"of the present one {100 * check(made, 'copies')['value']:.1f} %." in gates


def test_what_the_generator_page_says_of_temperatures():
    found = result("temperature")
    page = (ROOT / "docs" / "generator.md").read_text()
    assert f"on {found['cubes']} ids" in page
    for temperature in ("1", "1.05", "1.1", "1.15", "1.2"):
        row = found["temperatures"][temperature]
        shown = f"{row['variance_over_real']:.2f} | {row['joint_over_real']:.1f} | {row['accepted']:.2f}"
        assert f"| {temperature} | {shown} |" in page, shown


def test_what_the_generator_page_says_of_few_steps():
    found = result("steps")
    page = (ROOT / "docs" / "generator.md").read_text()
    assert f"{found['ids']:,} of each" in page
    for name, run in found["steps"].items():
        shown = "{:.1f} [{:.1f}, {:.1f}]".format(*run["joint"])
        over = "{:.2f} [{:.2f}, {:.2f}]".format(*run["joint over ab2 64"])
        assert f"| {name} | {run['evaluations']} | {shown} | {over} |" in page, (
            f"| {name} | {run['evaluations']} | {shown} | {over} |"
        )


def test_what_the_generator_page_says_of_peers():
    found = result("peers")
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "generator.md").read_text())
    for name, run in found["sampling"].items():
        ms, size = run["ms_a_cube"], {k: v / 1e6 for k, v in run["parameters"].items()}
        for ours, theirs in (("our U-Net", "diffusers U-Net"), ("our decoder", "diffusers decoder")):
            cells = [f"{size[ours]:.1f}, {ms[ours]:.1f} ms", f"{size[theirs]:.1f}, {ms[theirs]:.1f} ms"]
            shown = " | ".join([name, ours.removeprefix("our "), *cells, f"{ms[theirs] / ms[ours]:.1f}"])
            assert f"| {shown} |" in page, shown
        for ours, theirs in (("8", "diffusers, 8 steps"), ("8", "ancestral, 300 steps"), ("4", "ancestral, 300 steps")):
            cells = [f"{ms[f'ours, {ours} steps']:.0f} ms", f"{ms[theirs]:,.0f} ms"]
            shown = " | ".join([name, f"whole cube, {ours} steps beside {theirs}", *cells])
            assert f"| {shown} | {ms[theirs] / ms[f'ours, {ours} steps']:.1f} |" in page, shown
    equal, longer, peer = (found["decoders"][k] for k in ("ours, equal steps", "ours, equal time", "diffusers"))
    words = f"{equal['psnr_db']:.1f} dB against diffusers' {peer['psnr_db']:.1f} after {peer['steps']} steps of each"
    assert f"{words}; ours reach {longer['psnr_db']:.1f} in the time" in page, words
    alike = "ancestral with our U-Net and that decoder over ours in 8 steps, from the figures above"
    both = " and ".join(str(run["ratios"][alike]) for run in found["sampling"].values())
    assert f"ancestral sampling would take {both} times" in page, both
    quantiser = found["quantiser"]
    ms, mib = ({k: f"{v:,.0f}" for k, v in quantiser[key].items()} for key in ("ms", "peak_mib"))
    peer = "vector-quantize-pytorch"
    own = f"{ms['ours']} ms and {mib['ours']} MiB beyond its inputs"
    assert f"{own}, against {ms[peer]} ms and {mib[peer]} MiB of {peer}" in page, own
