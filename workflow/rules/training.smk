"""Train every variant with every seed; one rule, variants are configuration.

in:  data/<scale>/clips/, data/<scale>/plans/, data/<scale>/features/
out: results/<scale>/checkpoints/<variant>/seed<k>/
"""


rule train_variant:
    input:
        unpack(training_inputs),
    output:
        model=directory(f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/model"),
        curves=f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/curves.csv",
        record=f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/checkpoint.json",
    log:
        f"logs/train_variant/{SCALE}/{{variant}}/seed{{seed}}.log",
    benchmark:
        f"benchmarks/jobs/train_variant/{SCALE}/{{variant}}/seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: lambda w: asks("training", CONFIG.variants[w.variant].recipe).threads
    resources:
        gpu=lambda w: asks("training", CONFIG.variants[w.variant].recipe).gpu,
        mem_mb=lambda w: asks("training", CONFIG.variants[w.variant].recipe).mem_mb,
        runtime=lambda w: asks("training", CONFIG.variants[w.variant].recipe).runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("training"),
        settings=lambda w: digest(CONFIG.training_settings(w.variant, int(w.seed))),
        folder=subpath(output.record, parent=True),
        state=f"{DATA}/training_state/{{variant}}/seed{{seed}}",
        inputs=training_flags,
    shell:
        "python -m geomem.training train {params.folder:q} {params.job} --threads {threads}"
        " --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " {params.inputs} --state {params.state:q} > {log:q} 2>&1"
