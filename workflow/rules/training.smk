"""Train every variant with every seed; one rule, variants are configuration. Pick the best of some.

in:  data/<scale>/clips/, data/<scale>/plans/, data/<scale>/features/; scores, for picks
out: results/<scale>/checkpoints/<variant>/seed<k>/, results/<scale>/choices/<variant>.json
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
    wildcard_constraints:
        variant=one_of(TRAINED),
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
        settings=lambda w: digest(CONFIG.training_settings(w.variant, int(w.seed))),
        folder=subpath(output.record, parent=True),
        state=f"{DATA}/training_state/{{variant}}/seed{{seed}}",
        inputs=training_flags,
    shell:
        "{resources.launcher}python -m geomem.training train {params.folder:q} {params.job}"
        " --threads {resources.threads_each} --expect {params.settings} --variant {wildcards.variant} --seed {wildcards.seed}"
        " {params.inputs} --state {params.state:q} > {log:q} 2>&1"


rule choose_variant:
    input:
        scores=choice_scores,
    output:
        choice=f"{RESULTS}/choices/{{variant}}.json",
    log:
        f"logs/choose_variant/{SCALE}/{{variant}}.log",
    benchmark:
        f"benchmarks/jobs/choose_variant/{SCALE}/{{variant}}.tsv"
    wildcard_constraints:
        variant=one_of(PICKED),
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("training"),
        settings=lambda w: digest(CONFIG.choice_settings(w.variant)),
        scores=lambda w, input: f"--scores {input.scores}" if input.scores else "",
    shell:
        "python -m geomem.training choose {output.choice:q} {params.job}"
        " --expect {params.settings} --variant {wildcards.variant} {params.scores}"
        " > {log:q} 2>&1"


rule adopt_checkpoint:
    input:
        choice=f"{RESULTS}/choices/{{variant}}.json",
        candidates=lambda w: [f"{folder}/checkpoint.json" for folder in candidate_folders(w)],
    output:
        model=directory(f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/model"),
        curves=f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/curves.csv",
        record=f"{RESULTS}/checkpoints/{{variant}}/seed{{seed}}/checkpoint.json",
    log:
        f"logs/adopt_checkpoint/{SCALE}/{{variant}}/seed{{seed}}.log",
    benchmark:
        f"benchmarks/jobs/adopt_checkpoint/{SCALE}/{{variant}}/seed{{seed}}.tsv"
    wildcard_constraints:
        variant=one_of(PICKED),
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("training"),
        settings=lambda w: digest(CONFIG.choice_settings(w.variant)),
        folder=subpath(output.record, parent=True),
        candidates=candidate_folders,
    shell:
        "python -m geomem.training adopt {params.folder:q} {params.job} --expect {params.settings}"
        " --variant {wildcards.variant} --seed {wildcards.seed} --choice {input.choice:q}"
        " --candidates {params.candidates:q} > {log:q} 2>&1"
