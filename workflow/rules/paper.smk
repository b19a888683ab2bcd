"""Tables, figures and the paper's PDF; and the mirror of all runs in MLflow.

in:  results/<scale>/scores/, analysis/, rollouts/, checkpoints/, teacher.json, content_bias.json,
     consistency.json; data/study/votes.csv where raters have voted
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
        unpack(job_inputs(table_job)),
    output:
        csv=report(
            str(LAYOUT.table("{table}", "csv")),
            caption="../report/table.rst",
            category="Tables",
            subcategory=part_of_study,
            labels=table_labels,
        ),
        tex=str(LAYOUT.table("{table}", "tex")),
        values=str(LAYOUT.metrics("{table}")),
        provenance=str(LAYOUT.provenance("{table}")),
    log:
        f"logs/render_table/{SCALE}/{{table}}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(table_job),
        inputs=job_options(table_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper table {wildcards.table} {params.job} --expect {params.settings}"
        " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
        " --provenance {output.provenance:q}"


rule render_teacher_table:
    input:
        unpack(job_inputs(teacher_table_job)),
    output:
        csv=report(
            str(LAYOUT.table("teacher_table", "csv")),
            caption="../report/teacher_table.rst",
            category="Tables",
            subcategory="Main job",
            labels={"table": "teacher_table: How well the teacher reconstructs."},
        ),
        tex=str(LAYOUT.table("teacher_table", "tex")),
        values=str(LAYOUT.metrics("teacher_table")),
        provenance=str(LAYOUT.provenance("teacher_table")),
    log:
        f"logs/render_teacher_table/{SCALE}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(teacher_table_job),
        inputs=job_options(teacher_table_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper teacher-table {params.job} --expect {params.settings}"
        " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
        " --provenance {output.provenance:q}"


if CONFIG.costs:

    localrules:
        measure_costs,

    rule measure_costs:
        input:
            unpack(job_inputs(measured_job)),
        output:
            record=str(LAYOUT.costs),
        log:
            f"logs/measure_costs/{SCALE}.log",
        conda:
            ENVIRONMENT
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(measured_job),
            inputs=job_options(measured_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper measure {output.record:q} {params.job}"
            " --expect {params.settings} {params.inputs}"

    rule render_costs_table:
        input:
            unpack(job_inputs(costs_table_job)),
        output:
            csv=report(
                str(LAYOUT.table("costs_table", "csv")),
                caption="../report/costs_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "costs_table: What each method costs."},
            ),
            tex=str(LAYOUT.table("costs_table", "tex")),
            values=str(LAYOUT.metrics("costs_table")),
            provenance=str(LAYOUT.provenance("costs_table")),
        log:
            f"logs/render_costs_table/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(costs_table_job),
            inputs=job_options(costs_table_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper costs {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
            " --provenance {output.provenance:q}"


if CONFIG.content_bias:

    rule render_content_bias:
        input:
            unpack(job_inputs(content_bias_table_job)),
        output:
            csv=report(
                str(LAYOUT.table("content_bias", "csv")),
                caption="../report/content_bias_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "content_bias: Which networks see time."},
            ),
            tex=str(LAYOUT.table("content_bias", "tex")),
            values=str(LAYOUT.metrics("content_bias")),
            provenance=str(LAYOUT.provenance("content_bias")),
        log:
            f"logs/render_content_bias/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(content_bias_table_job),
            inputs=job_options(content_bias_table_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper content-bias {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
            " --provenance {output.provenance:q}"


if CONFIG.consistency:

    rule render_consistency:
        input:
            unpack(job_inputs(consistency_table_job)),
        output:
            csv=report(
                str(LAYOUT.table("consistency", "csv")),
                caption="../report/consistency_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "consistency: How metrics follow known errors."},
            ),
            tex=str(LAYOUT.table("consistency", "tex")),
            values=str(LAYOUT.metrics("consistency")),
            pdf=str(LAYOUT.figure("consistency", "pdf")),
            png=report(
                str(LAYOUT.figure("consistency", "png")),
                caption="../report/consistency_figure.rst",
                category="Figures",
                subcategory="The rest of the study",
                labels={"figure": "consistency (curves)"},
            ),
            provenance=str(LAYOUT.provenance("consistency")),
        log:
            f"logs/render_consistency/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(consistency_table_job),
            inputs=job_options(consistency_table_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper consistency {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
            " --pdf {output.pdf:q} --png {output.png:q} --provenance {output.provenance:q}"


if SETTINGS.cache_fidelity:

    rule render_cache_fidelity:
        input:
            unpack(job_inputs(cache_fidelity_table_job)),
        output:
            csv=report(
                str(LAYOUT.table("cache_fidelity", "csv")),
                caption="../report/cache_fidelity_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "cache_fidelity: What the feature cache loses."},
            ),
            tex=str(LAYOUT.table("cache_fidelity", "tex")),
            values=str(LAYOUT.metrics("cache_fidelity")),
            provenance=str(LAYOUT.provenance("cache_fidelity")),
        log:
            f"logs/render_cache_fidelity/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(cache_fidelity_table_job),
            inputs=job_options(cache_fidelity_table_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper cache-fidelity {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
            " --provenance {output.provenance:q}"


if CONFIG.preference_votes:

    rule render_preference_table:
        input:
            unpack(job_inputs(preference_table_job)),
        output:
            csv=report(
                str(LAYOUT.table("preference_table", "csv")),
                caption="../report/preference_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "preference_table: What people preferred."},
            ),
            tex=str(LAYOUT.table("preference_table", "tex")),
            values=str(LAYOUT.metrics("preference_table")),
            provenance=str(LAYOUT.provenance("preference_table")),
        log:
            f"logs/render_preference_table/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(preference_table_job),
            inputs=job_options(preference_table_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper preference {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q} --values {output.values:q}"
            " --provenance {output.provenance:q}"


# The main job does not know of the analysis: its tables are files there that an earlier run has left.
if CONFIG.analysis:

    rule render_analysis_tables:
        input:
            unpack(job_inputs(analysis_tables_job)),
        output:
            csv=report(
                str(LAYOUT.table("feature_analysis", "csv")),
                caption="../report/analysis_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "feature_analysis: What features know of space."},
            ),
            tex=str(LAYOUT.table("feature_analysis", "tex")),
            decoding_csv=report(
                str(LAYOUT.table("feature_decoding", "csv")),
                caption="../report/decoding_table.rst",
                category="Tables",
                subcategory="The rest of the study",
                labels={"table": "feature_decoding: What hidden states decode to."},
            ),
            decoding_tex=str(LAYOUT.table("feature_decoding", "tex")),
            values=str(LAYOUT.metrics("feature_analysis")),
            provenance=str(LAYOUT.provenance("feature_analysis")),
        log:
            f"logs/render_analysis_tables/{SCALE}.log",
        conda:
            ENVIRONMENT
        resources:
            **request("paper"),
        params:
            job=JOB,
            version=stage_version("paper"),
            settings=job_settings(analysis_tables_job),
            inputs=job_options(analysis_tables_job),
        shell:
            "python -m geomem.launch {log:q}"
            " python -m geomem.paper analysis-tables {params.job} --expect {params.settings}"
            " {params.inputs} --csv {output.csv:q} --tex {output.tex:q}"
            " --decoding-csv {output.decoding_csv:q} --decoding-tex {output.decoding_tex:q}"
            " --values {output.values:q} --provenance {output.provenance:q}"


rule draw_figure:
    input:
        unpack(job_inputs(figure_job)),
    output:
        pdf=str(LAYOUT.figure("{figure}", "pdf")),
        png=report(
            str(LAYOUT.figure("{figure}", "png")),
            caption="../report/figure.rst",
            category="Figures",
            subcategory=part_of_study,
            labels=figure_labels,
        ),
        provenance=str(LAYOUT.provenance("{figure}")),
    log:
        f"logs/draw_figure/{SCALE}/{{figure}}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(figure_job),
        inputs=job_options(figure_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper figure {wildcards.figure} {params.job} --expect {params.settings}"
        " {params.inputs} --pdf {output.pdf:q} --png {output.png:q}"
        " --provenance {output.provenance:q}"


rule encode_video:
    input:
        unpack(job_inputs(video_job)),
    output:
        mp4=report(
            str(LAYOUT.video("{video}")),
            caption="../report/video.rst",
            category="Videos",
            labels=video_labels,
        ),
        provenance=str(LAYOUT.provenance("{video}")),
    log:
        f"logs/encode_video/{SCALE}/{{video}}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(video_job),
        inputs=job_options(video_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper video {wildcards.video} {params.job} --expect {params.settings}"
        " {params.inputs} --mp4 {output.mp4:q} --provenance {output.provenance:q}"


rule state_facts:
    input:
        unpack(job_inputs(facts_job)),
    output:
        facts=str(LAYOUT.facts),
        setup=str(LAYOUT.setup),
        provenance=str(LAYOUT.provenance("facts")),
    log:
        f"logs/state_facts/{SCALE}.log",
    conda:
        ENVIRONMENT
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(facts_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper facts {output.facts:q} {params.job} --expect {params.settings}"
        " --setup {output.setup:q} --provenance {output.provenance:q}"


rule build_paper:
    input:
        unpack(job_inputs(paper_job)),
    output:
        pdf=report(
            str(LAYOUT.paper),
            caption="../report/paper.rst",
            category="Paper",
            labels={"document": "paper"},
        ),
        provenance=str(LAYOUT.provenance("paper")),
    log:
        f"logs/build_paper/{SCALE}.log",
    conda:
        ENVIRONMENT
    resources:
        **request("paper"),
    params:
        job=JOB,
        version=stage_version("paper"),
        settings=job_settings(paper_job),
        results=lambda w, output: str(Path(output.pdf).parents[1]),
        inputs=job_options(paper_job),
    shell:
        "python -m geomem.launch {log:q}"
        " python -m geomem.paper pdf {output.pdf:q} {params.job} --expect {params.settings}"
        " {params.inputs} --results {params.results:q} --provenance {output.provenance:q}"


rule publish_table:
    input:
        to_copy("tables/{product}.csv", "tables/{product}.tex"),
    output:
        csv="results/{product}.csv",
        tex="results/{product}.tex",
    log:
        "logs/publish/{product}.log",
    wildcard_constraints:
        product=r"\w+",
    conda:
        ENVIRONMENT
    params:
        made=originals("tables/{product}.csv", "tables/{product}.tex"),
    shell:
        "cp {params.made:q} results 2> {log:q}"


rule publish_figure:
    input:
        to_copy("figures/{figure}.pdf", "figures/{figure}.png"),
    output:
        pdf="results/figures/{figure}.pdf",
        png="results/figures/{figure}.png",
    log:
        "logs/publish/{figure}.log",
    wildcard_constraints:
        figure=r"\w+",
    conda:
        ENVIRONMENT
    params:
        made=originals("figures/{figure}.pdf", "figures/{figure}.png"),
    shell:
        "cp {params.made:q} results/figures 2> {log:q}"


rule publish_paper:
    input:
        to_copy("paper/main.pdf"),
    output:
        pdf="paper/main.pdf",
    log:
        "logs/publish/paper.log",
    conda:
        ENVIRONMENT
    params:
        made=originals("paper/main.pdf"),
    shell:
        "cp {params.made:q} {output.pdf:q} 2> {log:q}"


rule mirror_runs:
    input:
        to_mirror,
    output:
        runs=MIRROR,
    log:
        f"logs/mirror_runs/{SCALE}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=30,  # minutes
    params:
        job=JOB + " --main-job" * MAIN_JOB,
        tracking=[STORE, CONFIG.tracking.experiment],
    shell:
        "python -m geomem.launch {log:q}" " geomem mirror {output.runs:q} {params.job}"
