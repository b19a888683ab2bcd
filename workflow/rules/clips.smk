"""Clips and plans.

in:  config alone (embedded worlds); the hub (downloaded data sets: local rules, on the login node)
out: data/<scale>/clips/<dataset>/<split>/shard-*/, data/<scale>/plans/<plan>.json
"""


localrules:
    download_archive,
    unpack_archive,


rule render_clips:
    output:
        rgb=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/rgb.npy",
        cam=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/cam.npy",
        depth=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/depth.npy",
        index=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/index.json",
    log:
        f"logs/render_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.log",
    benchmark:
        f"benchmarks/jobs/render_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.tsv"
    wildcard_constraints:
        dataset=one_of(EMBEDDED),
    conda:
        ENVIRONMENT
    threads: asks("clips").threads
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.clips_settings(w.split)),
        folder=subpath(output.index, parent=True),
    shell:
        "python -m geomem.clips render {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --split {wildcards.split} --number {wildcards.number}"
        " > {log:q} 2>&1"


rule download_archive:
    output:
        parts=directory("data/archives/{dataset}/parts"),
    log:
        "logs/download_archive/{dataset}.log",
    benchmark:
        "benchmarks/jobs/download_archive/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=1440,  # minutes
    params:
        job=JOB,
        version=stage_version("clips"),
    shell:
        "HF_HUB_OFFLINE=0 python -m geomem.clips download {output.parts:q} {params.job}"
        " --dataset {wildcards.dataset} > {log:q} 2>&1"


rule unpack_archive:
    input:
        parts="data/archives/{dataset}/parts",
    output:
        folder=directory("data/archives/{dataset}/unpacked"),
    log:
        "logs/unpack_archive/{dataset}.log",
    benchmark:
        "benchmarks/jobs/unpack_archive/{dataset}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=720,  # minutes
    params:
        job=JOB,
        version=stage_version("clips"),
    shell:
        "python -m geomem.clips unpack {output.folder:q} {params.job}"
        " --dataset {wildcards.dataset} --archive {input.parts:q} > {log:q} 2>&1"


rule choose_clips:
    input:
        folder=lambda w: f"data/archives/{SETTINGS.splits[w.split].dataset}/unpacked",
    output:
        choice=f"{DATA}/plans/clips/{{split}}.json",
    log:
        f"logs/choose_clips/{SCALE}/{{split}}.log",
    benchmark:
        f"benchmarks/jobs/choose_clips/{SCALE}/{{split}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.clips_settings(w.split)),
    shell:
        "python -m geomem.clips choose {output.choice:q} {params.job}"
        " --expect {params.settings} --split {wildcards.split} --folder {input.folder:q}"
        " > {log:q} 2>&1"


rule import_clips:
    input:
        folder="data/archives/{dataset}/unpacked",
        choice=f"{DATA}/plans/clips/{{split}}.json",
    output:
        rgb=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/rgb.npy",
        cam=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/cam.npy",
        index=f"{DATA}/clips/{{dataset}}/{{split}}/shard-{{number}}/index.json",
    log:
        f"logs/import_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.log",
    benchmark:
        f"benchmarks/jobs/import_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.tsv"
    wildcard_constraints:
        dataset=one_of(DOWNLOADED),
    conda:
        ENVIRONMENT
    threads: asks("clips").threads
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.clips_settings(w.split)),
        folder=subpath(output.index, parent=True),
    shell:
        "python -m geomem.clips import {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --split {wildcards.split} --number {wildcards.number}"
        " --folder {input.folder:q} --choice {input.choice:q} > {log:q} 2>&1"


rule draw_plan:
    input:
        clips=lambda w: clips(SETTINGS.plans[w.plan].split),
    output:
        plan=f"{DATA}/plans/{{plan}}.json",
    log:
        f"logs/draw_plan/{SCALE}/{{plan}}.log",
    benchmark:
        f"benchmarks/jobs/draw_plan/{SCALE}/{{plan}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=lambda w: digest(CONFIG.plan_settings(w.plan)),
        clips=lambda w, input: split_folder(input.clips),
    shell:
        "python -m geomem.clips plan {output.plan:q} {params.job} --expect {params.settings}"
        " --plan {wildcards.plan} --clips {params.clips:q} > {log:q} 2>&1"
