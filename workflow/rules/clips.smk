"""Clips and plans.

in:  config alone (embedded worlds); the hub (downloaded data sets: local rules, on the login node);
     a folder that the user has, named in config/datasets
out: data/<scale>/clips/<dataset>/<split>/shard-*/, data/<scale>/plans/<plan>.json
"""


localrules:
    download_archive,
    unpack_archive,


rule make_clips:
    input:
        unpack(job_inputs(clips_job)),
    output:
        rgb=str(LAYOUT.shard("{dataset}", "{split}", "{number}") / "rgb.npy"),
        cam=str(LAYOUT.shard("{dataset}", "{split}", "{number}") / "cam.npy"),
        sums=str(LAYOUT.shard("{dataset}", "{split}", "{number}") / "crc32.npy"),
        index=str(LAYOUT.shard("{dataset}", "{split}", "{number}") / "index.json"),
    log:
        f"logs/make_clips/{SCALE}/{{dataset}}/{{split}}-{{number}}.log",
    wildcard_constraints:
        dataset=one_of(CONFIG.datasets),
    conda:
        ENVIRONMENT
    threads: asks("clips").threads
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=job_settings(clips_job),
        folder=subpath(output.index, parent=True),
        inputs=job_options(clips_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.clips make {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --split {wildcards.split} --number {wildcards.number}"
        " {params.inputs}"


rule download_archive:
    output:
        parts=directory(str(LAYOUT.archive("{dataset}"))),
    log:
        "logs/download_archive/{dataset}.log",
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
        "HF_HUB_OFFLINE=0 python -m geomem.launch {log:q}"
        " python -m geomem.clips download {output.parts:q} {params.job}"
        " --dataset {wildcards.dataset}"


rule unpack_archive:
    input:
        parts=str(LAYOUT.archive("{dataset}")),
    output:
        folder=directory(str(LAYOUT.unpacked("{dataset}"))),
    log:
        "logs/unpack_archive/{dataset}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=720,  # minutes
    params:
        job=JOB,
        version=stage_version("clips"),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.clips unpack {output.folder:q} {params.job}"
        " --dataset {wildcards.dataset} --archive {input.parts:q}"


rule choose_clips:
    input:
        unpack(job_inputs(choice_job)),
    output:
        choice=str(LAYOUT.chosen_clips("{split}")),
    log:
        f"logs/choose_clips/{SCALE}/{{split}}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=job_settings(choice_job),
        inputs=job_options(choice_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.clips choose {output.choice:q} {params.job}"
        " --expect {params.settings} --split {wildcards.split} {params.inputs}"


rule draw_plan:
    input:
        unpack(job_inputs(plan_job)),
    output:
        plan=str(LAYOUT.plan("{plan}")),
    log:
        f"logs/draw_plan/{SCALE}/{{plan}}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("clips"),
    params:
        job=JOB,
        version=stage_version("clips"),
        settings=job_settings(plan_job),
        inputs=job_options(plan_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.clips plan {output.plan:q} {params.job} --expect {params.settings}"
        " --plan {wildcards.plan} {params.inputs}"
