"""Common first names, for invented facts."""

NAMES = tuple(
    """
    Aaron Abby Adam Adele Aisha Alan Albert Alice Alma Amber Amy Andre Andrew Angela Anita Anna Anthony Anton Arthur
    Audrey Barbara Basil Beatrice Ben Bernard Beth Bianca Blake Boris Brenda Brian Bruce Bruno Carla Carlos Carmen
    Carol Caroline Cecil Celia Chad Charles Charlotte Chloe Chris Claire Clara Claude Colin Conrad Cora Craig Cyril
    Daisy Dana Daniel Daphne David Dawn Dean Deborah Dennis Derek Diana Diego Dinah Dominic Donald Dora Doris Douglas
    Duncan Edgar Edith Edward Eileen Elaine Elena Eli Ella Ellen Elmer Elsa Emil Emily Emma Eric Erica Ernest Esther
    Ethan Eugene Eva Evan Faith Farah Felix Fiona Flora Frances Frank Fred Gail Gavin Gemma George Gerald Gina Gloria
    Gordon Grace Graham Greta Gustav Hana Hannah Harold Harriet Harry Hazel Heather Hector Heidi Helen Henry Herman
    Hugo Ian Ida Igor Ines Ingrid Irene Iris Isaac Ivan Ivy Jack Jacob Jake James Jane Jasper Jean Jenny Jerome Jill
    Joan Joel John Jonas Joseph Joyce Judy Julia Julian June Karen Karl Kate Keith Kelly Kevin Klaus Lara Laura Leah
    Lena Leo Leon Lewis Liam Lidia Linda Lisa Lloyd Louis Lucas Lucy Luke Luna Lydia Mabel Marco Margaret Maria Mark
    Martha Martin Mary Matthew Maud Max Maya Megan Mia Michael Mila Miles Mona Monica Morris Nadia Nancy Naomi Nathan
    Neil Nell Nicholas Nina Noah Nora Norman Olga Oliver Olivia Omar Oscar Otto Owen Pablo Pamela Patrick Paul Paula
    Pedro Penny Peter Philip Phoebe Quentin Rachel Ralph Ray Rebecca Rita Robert Roger Rosa Roy Ruby Rupert Ruth Ryan
    Sally Samuel Sandra Sara Scott Sean Selma Simon Sofia Stella Steven Susan Sylvia Tara Teresa Thomas Tina Toby Tom
    Ursula Vera Vernon Victor Viola Walter Wanda Warren Wendy Wilma Xavier Yara Yusuf Zara Zoe
    """.split()  # noqa: SIM905 - three hundred quoted names would fill screens for nothing
)
