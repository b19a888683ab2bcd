"""Train every variant with every seed; one rule, variants are configuration.

in:  data/<scale>/clips/, data/<scale>/plans/, data/<scale>/features/; weights that are there already
out: results/<scale>/checkpoints/<variant>/seed<k>/
"""


localrules:
    download_weights,


rule train_variant:
    input:
        unpack(job_inputs(checkpoint_job)),
    output:
        model=directory(str(LAYOUT.checkpoint("{variant}", "{seed}") / "model")),
        curves=str(LAYOUT.checkpoint("{variant}", "{seed}") / "curves.csv"),
        record=str(LAYOUT.checkpoint_record("{variant}", "{seed}")),
    log:
        f"logs/train_variant/{SCALE}/{{variant}}/seed{{seed}}.log",
    wildcard_constraints:
        variant=one_of(TRAINED),
    priority: 1  # most jobs wait for one
    conda:
        ENVIRONMENT
    threads: lambda w: training_asks(w).threads
    resources:
        **request("training", recipe_name),
        launcher=lambda w: launcher(training_asks(w)),
        threads_each=lambda w, threads: max(1, threads // training_asks(w).processes),
    params:
        job=JOB,
        version=stage_version("training"),
        settings=job_settings(checkpoint_job),
        folder=subpath(output.record, parent=True),
        state=lambda w: str(LAYOUT.state(w.variant, w.seed)),
        inputs=job_options(checkpoint_job),
    shell:
        "python -m geomem.launch {log:q}"
        " {resources.launcher}python -m geomem.training train {params.folder:q} {params.job}"
        " --threads {resources.threads_each} --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " {params.inputs} --state {params.state:q}"


rule download_weights:
    output:
        weights="{path}",
    log:
        "logs/download_weights/{path}.log",
    wildcard_constraints:
        path=one_of(map(re.escape, DOWNLOADS)),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=120,  # minutes
    params:
        source=lambda w: download_options(DOWNLOADS[w.path]),
    shell:
        "HF_HUB_OFFLINE=0 python -m geomem.launch {log:q}"
        " geomem download {output.weights:q} {params.source}"


rule import_weights:
    input:
        unpack(job_inputs(checkpoint_job)),
    output:
        model=directory(str(LAYOUT.checkpoint("{variant}", "{seed}") / "model")),
        curves=str(LAYOUT.checkpoint("{variant}", "{seed}") / "curves.csv"),
        record=str(LAYOUT.checkpoint_record("{variant}", "{seed}")),
    log:
        f"logs/import_weights/{SCALE}/{{variant}}/seed{{seed}}.log",
    wildcard_constraints:
        variant=one_of(IMPORTED),
    conda:
        ENVIRONMENT
    resources:
        **request("picks"),
    params:
        job=JOB,
        version=stage_version("training"),
        settings=job_settings(checkpoint_job),
        folder=subpath(output.record, parent=True),
        inputs=job_options(checkpoint_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.training import {params.folder:q} {params.job}"
        " --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " {params.inputs}"
