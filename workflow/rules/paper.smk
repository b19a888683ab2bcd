"""Tables, figures and the paper's PDF; and the mirror of all runs in MLflow.

in:  results/<scale>/scores/, analysis/, rollouts/, checkpoints/, teacher.json
out: results/<scale>/tables/, figures/, paper/main.pdf, provenance/, videos/ (for people; nothing reads
     them); of the scale that config/config.yaml names also results/*.csv, results/*.tex,
     results/figures/, paper/main.pdf
"""


localrules:
    mirror_runs,
    state_facts,
    publish_table,
    publish_figure,
    publish_paper,


rule render_table:
    input:
        scores=lambda w: names(GRAPH.table_scores(w.table)),
        checkpoints=lambda w: names(
            GRAPH.checkpoints(row.variant for row in CONFIG.tables[w.table].rows)
        ),
        published="config/published_numbers.csv",
        template=PACKAGE / "paper/templates/table.tex.j2",
    output:
        csv=report(
            str(LAYOUT.table("{table}", "csv")), category="Tables", labels={"table": "{table}"}
        ),
        tex=str(LAYOUT.table("{table}", "tex")),
        values=str(LAYOUT.metrics("{table}")),
        provenance=str(LAYOUT.provenance("{table}")),
    log:
        f"logs/render_table/{SCALE}/{{table}}.log",
    benchmark:
        f"benchmarks/jobs/render_table/{SCALE}/{{table}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=lambda w: JOBS.table(w.table).digest,
    shell:
        "python -m geomem.paper table {wildcards.table} {params.job} --expect {params.settings}"
        " --scores {input.scores:q} --checkpoints {input.checkpoints:q}"
        " --published {input.published:q}"
        " --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
        " --provenance {output.provenance:q}"
        " > {log:q} 2>&1"


rule render_teacher_table:
    input:
        metrics=str(LAYOUT.teacher_metrics),
        template=PACKAGE / "paper/templates/table.tex.j2",
    output:
        csv=report(
            str(LAYOUT.table("teacher_table", "csv")),
            category="Tables",
            labels={"table": "teacher_table"},
        ),
        tex=str(LAYOUT.table("teacher_table", "tex")),
        values=str(LAYOUT.metrics("teacher_table")),
        provenance=str(LAYOUT.provenance("teacher_table")),
    log:
        f"logs/render_teacher_table/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/render_teacher_table/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=JOBS.teacher_table().digest,
    shell:
        "python -m geomem.paper teacher-table {input.metrics:q} {params.job} --expect {params.settings}"
        " --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
        " --provenance {output.provenance:q}"
        " > {log:q} 2>&1"


rule render_analysis_tables:
    input:
        analyses=lambda w: names(
            GRAPH.analyses([row.variant for row in CONFIG.analysis.rows], SETTINGS.seeds)
        ),
        template=PACKAGE / "paper/templates/table.tex.j2",
    output:
        csv=str(LAYOUT.table("feature_analysis", "csv")),
        tex=str(LAYOUT.table("feature_analysis", "tex")),
        decoding_csv=str(LAYOUT.table("feature_decoding", "csv")),
        decoding_tex=str(LAYOUT.table("feature_decoding", "tex")),
        values=str(LAYOUT.metrics("feature_analysis")),
        provenance=str(LAYOUT.provenance("feature_analysis")),
    log:
        f"logs/render_analysis_tables/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/render_analysis_tables/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=asks("paper").mem_mb,
        runtime=asks("paper").runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=lambda w: JOBS.analysis_table().digest,
    shell:
        "python -m geomem.paper analysis-tables {params.job} --expect {params.settings}"
        " --analyses {input.analyses:q} --csv {output.csv:q} --tex {output.tex:q}"
        " --decoding-csv {output.decoding_csv:q} --decoding-tex {output.decoding_tex:q}"
        " --values {output.values:q} --provenance {output.provenance:q} > {log:q} 2>&1"


rule draw_figure:
    input:
        unpack(figure_inputs),
    output:
        pdf=str(LAYOUT.figure("{figure}", "pdf")),
        png=report(
            str(LAYOUT.figure("{figure}", "png")),
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        provenance=str(LAYOUT.provenance("{figure}")),
    log:
        f"logs/draw_figure/{SCALE}/{{figure}}.log",
    benchmark:
        f"benchmarks/jobs/draw_figure/{SCALE}/{{figure}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=lambda w: JOBS.figure(w.figure).digest,
        inputs=figure_options,
    shell:
        "python -m geomem.paper figure {wildcards.figure} {params.job} --expect {params.settings}"
        " {params.inputs} --pdf {output.pdf:q} --png {output.png:q}"
        " --provenance {output.provenance:q} > {log:q} 2>&1"


rule encode_video:
    input:
        unpack(lambda w: videos_shown(CONFIG.videos[w.video])),
    output:
        mp4=str(LAYOUT.video("{video}")),
        provenance=str(LAYOUT.provenance("{video}")),
    log:
        f"logs/encode_video/{SCALE}/{{video}}.log",
    benchmark:
        f"benchmarks/jobs/encode_video/{SCALE}/{{video}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=asks("paper").mem_mb,
        runtime=asks("paper").runtime,  # minutes
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=lambda w: JOBS.video(w.video).digest,
        inputs=lambda w: video_options(CONFIG.videos[w.video]),
    shell:
        "python -m geomem.paper video {wildcards.video} {params.job} --expect {params.settings}"
        " {params.inputs} --mp4 {output.mp4:q} --provenance {output.provenance:q} > {log:q} 2>&1"


rule state_facts:
    output:
        facts=str(LAYOUT.facts),
    log:
        f"logs/state_facts/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/state_facts/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=JOBS.facts().digest,
    shell:
        "python -m geomem.paper facts {output.facts:q} {params.job} --expect {params.settings}"
        " > {log:q} 2>&1"


rule build_paper:
    input:
        tables=shown_in_paper("tables", "tex"),
        teacher=rules.render_teacher_table.output.tex,
        analysis=[str(LAYOUT.table(name, "tex")) for name in analysis_tables()],
        facts=rules.state_facts.output.facts,
        figures=shown_in_paper("figures", "pdf"),
        sources=sorted(str(path) for path in Path("paper").rglob("*.tex")),
        bibliography="paper/references.bib",
    output:
        pdf=report(str(LAYOUT.paper), category="Paper", labels={"document": "paper"}),
    log:
        f"logs/build_paper/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/build_paper/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        version=stage_version("paper"),
        results=lambda w, output: str(Path(output.pdf).parents[1]),
    shell:
        "python -m geomem.paper pdf {output.pdf:q} --results {params.results:q} > {log:q} 2>&1"


rule publish_table:
    input:
        csv=published("tables/{product}.csv"),
        tex=published("tables/{product}.tex"),
    output:
        csv="results/{product}.csv",
        tex="results/{product}.tex",
    log:
        "logs/publish/{product}.log",
    wildcard_constraints:
        product=r"\w+",
    conda:
        ENVIRONMENT
    shell:
        "(cp {input.csv:q} {output.csv:q} && cp {input.tex:q} {output.tex:q}) 2> {log:q}"


rule publish_figure:
    input:
        pdf=published("figures/{figure}.pdf"),
        png=published("figures/{figure}.png"),
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
    log:
        "logs/publish/{figure}.log",
    conda:
        ENVIRONMENT
    shell:
        "(cp {input.pdf:q} {output.pdf:q} && cp {input.png:q} {output.png:q}) 2> {log:q}"


rule publish_paper:
    input:
        pdf=published("paper/main.pdf"),
    output:
        pdf="paper/main.pdf",
    log:
        "logs/publish/paper.log",
    conda:
        ENVIRONMENT
    shell:
        "cp {input.pdf:q} {output.pdf:q} 2> {log:q}"


rule mirror_runs:
    input:
        checkpoints=names(GRAPH.checkpoints(RUNS)),
        scores=names(GRAPH.scores_of(SCORES)),
    output:
        runs=MIRROR,
    log:
        f"logs/mirror_runs/{SCALE}.log",
    benchmark:
        f"benchmarks/jobs/mirror_runs/{SCALE}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=30,  # minutes
    params:
        job=JOB,
        tracking=[STORE, CONFIG.tracking.experiment],
    shell:
        "geomem mirror {output.runs:q} {params.job} --checkpoints {input.checkpoints:q}"
        " --scores {input.scores:q} > {log:q} 2>&1"
